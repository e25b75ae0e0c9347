#!/bin/sh
# Write a row from a shell script: the sqlite3 program is the agent, and writes a dict, as `shard.write({...})` would.
#
#     edgeshard write data door '{"open": false}'      once: the first row creates data/shards/door.db
#     sh sqlite_shell.sh data door '{"open": true}'
#
# Run the mergers of such a store with --keep-empty. Otherwise the shard is removed whenever it is empty, because
# nobody has it open. The sqlite3 program should be 3.51.3 or later (https://sqlite.org/wal.html#walresetbug).
set -eu
shard=$1/shards/$2
json=$(printf %s "$3" | sed "s/'/''/g")

# an agent of edgeshard takes the same lock to open the shard; mode=rw: a missing shard is an error
flock -w 10 "$shard.lock" sqlite3 -bail -cmd ".timeout 10000" "file:$shard.db?mode=rw" <<SQL
begin immediate;
create table if not exists agent_data(_id integer primary key, agent_id text, timestamp text, data text) strict;
insert or ignore into _edgeshard_columns values
    ('agent_data', 'agent_id', 'text', 1), ('agent_data', 'timestamp', 'datetime', 2), ('agent_data', 'data', 'json', 3);
-- each run is its own stream; the row's address is (stream, 1)
insert into _edgeshard_streams(agent_id, stream_id, began_at)
    select agent_id, randomblob(16), strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now') from _edgeshard_database;
insert into agent_data
    select (select max(stream_no) from _edgeshard_streams) << 32 | 1, agent_id,
    strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'), json('$json')
    from _edgeshard_database;
commit;
SQL
