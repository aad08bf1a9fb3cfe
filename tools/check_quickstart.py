"""Does the quickstart's last run show what README says? Exits 1 and names the claim that fails.

python tools/check_quickstart.py [runs/quickstart/report.json]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def claims(report: dict) -> dict[str, bool]:
    """Each claim of README about the quickstart, and whether the report bears it out."""
    swapped = [weight for name, weight in report["weights"].items() if report["corrupt"].get(name)]
    clean = [weight for name, weight in report["weights"].items() if not report["corrupt"].get(name)]
    before, after = report["before"], report["after"]
    return {
        "swapped domains weigh at most half of the clean ones": sum(swapped) / len(swapped)
        <= 0.5 * sum(clean) / len(clean),
        "every swapped domain weighs less than every clean one": max(swapped) < min(clean),
        "the judge selects better than chance (95 % interval)": after["selection"]["judge"]["low"] > 0.5,
        "and better than before": after["selection"]["judge"]["value"] > before["selection"]["judge"]["high"],
        "the meta loss fell": after["meta_loss"] < before["meta_loss"],
        "the weighted inner loss fell": after["inner_loss"] < before["inner_loss"],
    }


def main() -> int:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart/report.json")
    found = claims(json.loads(path.read_text(encoding="utf-8")))
    for claim, holds in found.items():
        print(f"{'ok ' if holds else 'NO '} {claim}")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
