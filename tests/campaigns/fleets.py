"""Play many random fleets, with all features at once, against their model; see `tests.support.fleets`.

    python -m tests.campaigns.fleets --form honest --trials 3000 --seed 1 --resume fleets.jsonl

A failure is printed with the fleet's steps; ``--only N`` plays that fleet again, alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.fleets import steps, trials
from tests.support.fleets.trials import Options, Result


def main() -> None:
    """Play random fleets, and print what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.fleets", description="Play random fleets against their model."
    )
    parser.add_argument(
        "--form", choices=(*steps.FORMS, "both"), default="both", help="with hostile participants, or not"
    )
    parser.add_argument("--trials", type=int, default=1_000, metavar="N", help="fleets of each form")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin at this fleet")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no fleet after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="in so many processes")
    parser.add_argument("--longest", type=int, default=trials.LONGEST, metavar="N", help="the most steps of a fleet")
    parser.add_argument(
        "--without", action="append", default=[], metavar="STEP", help="leave out a kind of step, or push"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="continue the campaign whose results are in this file"
    )
    parser.add_argument("--only", type=int, metavar="N", help="play only this fleet")
    options = parser.parse_args()
    unknown = set(options.without) - steps.STEPS.keys() - {"push"}
    if unknown:
        parser.error(f"unknown steps: {', '.join(sorted(unknown))}; there are {', '.join(sorted(steps.STEPS))}, push")
    forms = steps.FORMS if options.form == "both" else (options.form,)
    with _postgres(wanted="push" not in options.without) as dsn:
        failed = 0
        for form in forms:
            chosen = Options(options.seed, form, tuple(options.without), options.longest, dsn)
            if options.only is not None:
                trials.play_trial(chosen, options.only, verbose=True)
            else:
                failed += _campaign(chosen, options)
    sys.exit(1 if failed else 0)


def _campaign(chosen: Options, options: argparse.Namespace) -> int:
    """Play the fleets of one form; return how many failed."""
    done = _done(options.resume, chosen)
    numbers = [n for n in range(options.first, options.first + options.trials) if n not in done]
    failures: list[Result] = []

    def on_result(result: Result) -> None:
        if options.resume is not None:
            with options.resume.open("a") as file:
                line = {"form": chosen.form, "seed": chosen.seed, "number": result.number, "error": result.error}
                file.write(json.dumps({**line, "counts": result.counts}) + "\n")
        if result.error:
            failures.append(result)
            print(result.log, file=sys.stderr, flush=True)
            print(f"fleet {result.number} failed: {result.error}", flush=True)

    total = trials.play_trials(chosen, numbers, jobs=options.jobs, seconds=options.seconds, on_result=on_result)
    for _, counts in done.values():
        total.update(counts)
    failed = sorted([number for number, (error, _) in done.items() if error] + [item.number for item in failures])
    total["fleets"] = total["fleets"] + len(done)
    total["failed"] = len(failed)
    print(f"form {chosen.form}, seed {chosen.seed}:")
    for name, count in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        print(f"  {count:>8} {name}")
    if failed:
        print(f"  failed: {', '.join(map(str, failed))}")
    return len(failed)


def _done(path: Path | None, chosen: Options) -> dict[int, tuple[str, Counter[str]]]:
    """Return how the trials that an interrupted campaign has played ended."""
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    mine = [line for line in lines if (line["form"], line["seed"]) == (chosen.form, chosen.seed)]
    return {line["number"]: (line["error"], Counter(line["counts"])) for line in mine}


@contextlib.contextmanager
def _postgres(*, wanted: bool) -> Iterator[str | None]:
    """Yield the DSN of a PostgreSQL server, or None if there is none here."""
    foreign = os.environ.get("EDGESHARD_TEST_PG_DSN")
    if foreign or not wanted:
        yield foreign if wanted else None
        return
    from edgeshard.bench.system import NotRunError
    from tests.support.postgres_server import PgServer

    folder = Path(tempfile.mkdtemp(prefix="edgeshard-pg-"))
    folder.chmod(0o711)
    try:
        server = PgServer(folder)
    except NotRunError as error:
        print(f"no fleet ends in PostgreSQL: {error}", file=sys.stderr)
        shutil.rmtree(folder)
        yield None
        return
    try:
        yield server.dsn()
    finally:
        server.kill()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
