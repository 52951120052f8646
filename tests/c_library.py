"""libdigi, installed as `make install` does it, and what builds and runs programs with it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests/c"
#: Seconds: valgrind on a machine that is busy.
PATIENCE = 300

C = ["-std=c99", "-D_GNU_SOURCE"]
CPP = ["-std=c++17"]
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"]


def run(
    command: list[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None, timeout: int = PATIENCE
) -> str:
    """What it prints; with what it says where it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Library:
    """libdigi below a prefix."""

    prefix: Path

    @property
    def environment(self) -> dict[str, str]:
        """For programs that use it, and for what builds them."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.prefix / "lib"),
            "PKG_CONFIG_PATH": str(self.prefix / "lib/pkgconfig"),
        }

    def compile(self, compiler: str, source: Path, program: Path, *flags: str) -> Path:
        """A program against it."""
        language = CPP if source.suffix == ".cpp" else C
        config = run(["pkg-config", "--cflags", "--libs", "digi"], env=self.environment).split()
        run([compiler, *language, *STRICT, *flags, source, "-o", program, "-lpthread", *config])
        return program

    def run(self, command: list[str | Path], cwd: Path | None = None) -> str:
        """A program that uses it."""
        return run(command, cwd, self.environment)


def install(prefix: Path, **environment: str) -> Library:
    """What `make install` does."""
    run(["make", "install", f"PREFIX={prefix}"], cwd=ROOT, env={**os.environ, **environment}, timeout=1800)
    return Library(prefix)
