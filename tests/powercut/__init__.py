"""Power cuts, simulated under the real package: nothing acknowledged is lost, doubled or changed.

Read in this order: disk (what survives), scheduler (who runs), machine (what edgeshard runs on), vfs and system
(how it is told), found (what is there), oracle (what was promised), workload (who does what), trial, campaign; and
mutants.
"""
