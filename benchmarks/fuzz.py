"""Whether damaged files of any kind end in one clear line: no traceback, hang, or remains.

    python -m benchmarks.fuzz --inputs 10000 [--kinds TEXT] [--keep DIR] [--json FILE]

Each input is a valid file after random damage, handed to the command that reads it, in this
process. It may be read or refused. Refused means exit code 1 and one line that starts with
`error:`; nothing may be left half-written, and no program may be started. An input that hangs ends
the run with its stack; inputs that fail are kept in DIR after hypothesis has shrunk them.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.fuzz_targets import Target, make_targets
from factory_core.storage import write_json

HANG_SEC = 10
# Audit events (PEP 578) of starting a program or reaching the network.
PROGRAM_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
USAGE, REFUSED, READ = 2, 1, 0


@dataclass
class Outcome:
    """What became of the inputs of a target."""

    target: str
    inputs: int = 0
    read: int = 0
    slowest_sec: float = 0.0
    failures: list[str] = field(default_factory=list)


class Watch:
    """Counts the programs that are started while it is `on`."""

    def __init__(self) -> None:
        self.on, self.seen = False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.on and event in PROGRAM_EVENTS:
            self.seen.append(f"{event} {arguments!r}"[:200])


def call(arguments: list[str]) -> tuple[int, str]:
    """Exit code and stderr of `factory ARGUMENTS`; a traceback becomes its text and code -1."""
    from factory.cli import main

    err = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["factory", *arguments]),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as error:
            return int(error.code or 0), err.getvalue()
        except BaseException:
            return -1, traceback.format_exc()
    return 0, err.getvalue()


def fault(code: int, stderr: str, out: Path, watch: Watch) -> str | None:
    """What is wrong with the way a command ended; None if nothing is."""
    if watch.seen:
        return f"started a program: {watch.seen}"
    if code not in (READ, REFUSED, USAGE):
        return f"exit code {code}: {stderr[-1500:]}"
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    if code == REFUSED and len(errors) != 1:
        return f"refused with {len(errors)} lines of error: {stderr[-500:]}"
    if "Traceback" in stderr:
        return f"traceback: {stderr[-1500:]}"
    remains = [str(p.relative_to(out)) for p in out.rglob("*") if ".tmp" in p.name]
    return f"half-written files: {remains}" if remains else None


def fuzz(
    target: Target, inputs: int, folder: Path, watch: Watch, keep: Path | None = None
) -> Outcome:
    """Run the command of `target` on `inputs` damaged files, in `folder`."""
    outcome = Outcome(target.name)
    valid = (target.folder / target.file).read_bytes()
    where, out = folder / "input", folder / "out"

    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.damage(valid))
    def check(content: bytes) -> None:
        for path in (where, out):
            shutil.rmtree(path, ignore_errors=True)
        target.place(content, where)
        out.mkdir()
        watch.seen.clear()
        faulthandler.dump_traceback_later(6 * HANG_SEC, exit=True)
        began = time.perf_counter()
        watch.on = True
        try:
            code, stderr = call(target.command(where, out))
        finally:
            watch.on = False
            faulthandler.cancel_dump_traceback_later()
        elapsed = time.perf_counter() - began
        outcome.inputs += 1
        outcome.read += code == READ
        outcome.slowest_sec = max(outcome.slowest_sec, elapsed)
        found = fault(code, stderr, out, watch)
        if found is None and elapsed > HANG_SEC:
            found = f"took {elapsed:.0f} s"
        if found is not None:
            if keep is not None:
                shutil.rmtree(keep / target.name, ignore_errors=True)
                shutil.copytree(where, keep / target.name)
            raise AssertionError(found)

    try:
        check()
    except AssertionError as error:
        outcome.failures.append(str(error))
    except BaseExceptionGroup as group:  # several distinct failures
        outcome.failures += [str(error) for error in group.exceptions]
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="in all, over all kinds")
    parser.add_argument("--kinds", default="", help="only targets whose name contains this")
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    parser.add_argument("--json", type=Path)
    given_ = parser.parse_args()
    watch = Watch()
    with tempfile.TemporaryDirectory() as name:
        targets = [t for t in make_targets(Path(name) / "valid") if given_.kinds in t.name]
        each = -(-given_.inputs // len(targets))
        outcomes = []
        for target in targets:
            outcome = fuzz(target, each, Path(name), watch, given_.keep)
            outcomes.append(outcome)
            shown = f"{outcome.inputs:6} inputs, {outcome.read:6} read"
            print(f"{target.name:35} {shown}, slowest {outcome.slowest_sec:5.2f} s", flush=True)
            for failure in outcome.failures:
                print(f"    {failure}", flush=True)
    failed = sum(bool(o.failures) for o in outcomes)
    total = sum(o.inputs for o in outcomes)
    print(f"{total} inputs of {len(outcomes)} kinds, {failed} kinds with failures")
    if given_.json:
        write_json(given_.json, {"inputs": total, "targets": [asdict(o) for o in outcomes]})
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
