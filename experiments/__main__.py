"""Everything that trains and measures for the book: ``python -m experiments``.

Lists every script with the minutes that all of it takes on one core, says which results are stale and why,
and runs those, in an order in which each finds what it reads. A result is stale if its file is missing, was
measured with other settings, or belongs to networks that have been trained again since. An interrupted run
goes on where it stopped.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

from experiments import networks, trained
from experiments.results import some, why_stale

# Networks first, for many scripts judge them; scores last, for it puts together what others found.
SCRIPTS = (
    "networks",
    "arrival",
    "rotating_nine",
    "two_moons",
    "live_coupling",
    "mixing",
    "all_flows",
    "passes",
    "convolution",
    "regression",
    "names",
    "hmc",
    "truth",
    "last_layer",
    "kl_weight",
    "training_size",
    "rotation",
    "out_of_distribution",
    "adversarial",
    "posterior",
    "instrument",
    "scores",
)

PART_3 = ("trained", "table")  # under the contract; they will take the place of networks and what judges them


def reasons() -> Iterator[tuple[str, float, str]]:
    """Each script, about how many minutes of one core all of it takes, and why it has to run, if so."""
    for name in SCRIPTS + PART_3:
        script = import_module(f"experiments.{name}")
        trains = script in (networks, trained)
        yield name, script.MINUTES, some(script.left()) if trains else why_stale(script)


def run(name: str) -> None:
    """Run a script in a process of its own; of the networks those alone that are stale."""
    chosen = networks.left() if name == "networks" else []
    subprocess.run([sys.executable, "-m", f"experiments.{name}", *chosen], check=True)


def main() -> None:
    """List the scripts and run the stale ones."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list them, run nothing")
    listed = parser.parse_args().list
    for name, minutes, reason in reasons():
        print(f"{name:<20} {minutes:5.0f} min   {reason or 'up to date'}", flush=True)
        if reason and not listed:
            run(name)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where it stopped.")
    except subprocess.CalledProcessError as error:
        sys.exit(f"python -m experiments: {' '.join(error.cmd[1:])} failed, see above.")
