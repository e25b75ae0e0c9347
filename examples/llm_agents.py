"""Five LLM agents share what they find: each writes to its own shard, and reads what the others have written so far.

The model is a stand-in, so this runs offline; put a call to yours into `ask_model`.

python examples/llm_agents.py [FOLDER]
"""

import multiprocessing
import sys
import tempfile
from typing import TypedDict

import edgeshard

AGENTS = ("planner", "reader", "coder", "tester", "writer")
TOPICS = ("parser", "cache", "network", "storage")


class Finding(TypedDict):
    topic: str
    text: str
    builds_on: list[str]  # who had written about the topic before


def ask_model(agent: str, topic: str, context: list[str]) -> str:
    """Stand in for a call to a model."""
    return f"{agent} on {topic}, knowing {len(context)} findings"


def run(folder: str, agent: str) -> None:
    store = edgeshard.Store(folder)
    with store.shard(agent) as shard:
        for topic in TOPICS:
            earlier = store.query(  # fresh=True merges first: all that the others have written until now
                "SELECT agent_id, text FROM finding JOIN _edgeshard_streams ON stream_no = _stream WHERE topic = ?",
                [topic],
                fresh=True,
            )
            text = ask_model(agent, topic, [row.text for row in earlier])
            finding: Finding = {"topic": topic, "text": text, "builds_on": sorted({row.agent_id for row in earlier})}
            shard.write(finding, table=Finding)
            shard.write({"event": "tool_call", "tool": "search", "topic": topic}, table="trace")


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="edgeshard-llm-")
    store = edgeshard.Store(folder)
    with store.shard("setup") as shard:
        shard.write(Finding(topic="start", text="five agents begin", builds_on=[]), table=Finding)
    store.merge()
    agents = [multiprocessing.Process(target=run, args=(folder, agent)) for agent in AGENTS]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()
    store.merge()
    for topic in TOPICS:
        most = max((f for f in store.read(Finding) if f["topic"] == topic), key=lambda found: len(found["builds_on"]))
        print(f"{topic}: {most['text']}")
