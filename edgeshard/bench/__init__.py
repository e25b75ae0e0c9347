"""Benchmark ways to store the rows of many agents: ``python -m edgeshard.bench``.

The systems are a shared SQLite database (default and tuned), SQLite behind a queue, PostgreSQL, edgeshard, and hybrids
with a read-only SQLite library. All run under the same workloads. Every agent is a process, and after each trial every
row is read back and compared. A system whose dependencies are missing is reported as not run, never estimated. Systems
with different durability never share a table.

Each module imports only from those above it in this list:

units, spread         format numbers; median and range over rounds
workload              what the agents write
system                the interface that every system implements
servers               server processes that never outlive the benchmark
systems/              one module for each system
messages              what agents and the benchmark send each other
agent, reader         the measured processes
agent_host            the process that forks them
agent_pool            the benchmark's handle on that process
row_check             compare rows read back with rows acknowledged
resource_usage        CPU, memory and disk counters from /proc and /sys
measurement           the figures of one trial
meter, measure        measure one system under one workload
costs/                how edgeshard's own costs grow, compared with plain SQLite
goals/                what edgeshard costs where it used to be slower than others, and its goals
plan                  choose what to measure: profiles and workloads
trials                run the plan, alternating systems
summary               medians over rounds
machine               describe the machine
samples               the figures of a run that can be compared, by round
comparison            compare a run with an earlier one, and tell what became worse from noise
report/               Markdown tables, the HTML page with plots, the JSON file
options, progress, command    the command line
"""
