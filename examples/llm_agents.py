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
    agent: str
    topic: str
    text: str
    builds_on: list[str]  # who had written about the topic before


def ask_model(agent: str, topic: str, context: list[Finding]) -> str:
    """Stand in for a call to a model."""
    return f"{agent} on {topic}, knowing {len(context)} findings"


def run(folder: str, agent: str) -> None:
    store = edgeshard.Store(folder)
    with store.shard(agent) as shard:
        for topic in TOPICS:
            # fresh=True merges first, so this is all that anyone has written until now
            known = [finding for finding in store.read(Finding, fresh=True) if finding["topic"] == topic]
            found = Finding(
                agent=agent,
                topic=topic,
                text=ask_model(agent, topic, known),
                builds_on=sorted({finding["agent"] for finding in known}),
            )
            shard.write(found, table=Finding)
            shard.write({"tool": "search", "topic": topic, "tokens": 812}, table="tool_calls")


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="edgeshard-llm-")
    agents = [multiprocessing.Process(target=run, args=(folder, agent)) for agent in AGENTS]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()
    findings = list(edgeshard.Store(folder).read(Finding, fresh=True))
    for topic in TOPICS:
        print(max((f for f in findings if f["topic"] == topic), key=lambda found: len(found["builds_on"]))["text"])
    print("the store is", folder)
