"""Random fleets with all features at once, on real files, checked step by step against a model of plain dicts.

shapes      the classes that agents write, and values for them
model       what a database must hold, and what merging makes of it
disputes    which rows a database cannot take, because its columns have other types
contents    what a database does hold, read with plain SQL
unfit       which rows PostgreSQL cannot take as they are
upstream    the PostgreSQL database: what it must hold, and what not
fleet       the fleet: stores, files, clocks; and the checks
steps       the registry of steps, by name and weight
  agents      write, delete, close; refused records; writers that are killed
  merging     merges of anything into anything; mergers that are killed; watchers
  carrying    copies, snapshots, bundles, receipts, files put back
  pruning     prunes by each rule, tombstones, disk budgets
  conflicts   agents that contradict one another; classes that are corrected, tables that are dropped
  clocks      clocks that move both ways
  importing   files of other programs that are imported; agents that write rows from lines
  pushing     pushes to a PostgreSQL database, which rejects rows; what users do about these
  hostile     participants that lie (only in the form "hostile")
ending      everything is merged everywhere, and every promise is checked
trials      plays fleets by number, in several processes, and continues interrupted runs
"""
