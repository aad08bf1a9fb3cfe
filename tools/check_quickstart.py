"""Do the quickstarts' last runs show what README says? Exits 1 and names the claim that fails.

python tools/check_quickstart.py [runs/quickstart/report.json runs/quickstart_grpo/report.json]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def claims(report: dict) -> dict[str, bool]:
    """Each claim of README about a quickstart, and whether its report bears it out."""
    before, after = report["before"], report["after"]
    selects = {
        "the judge selects better than chance (95 % interval)": after["selection"]["judge"]["low"] > 0.5,
        "and better than before": after["selection"]["judge"]["value"] > before["selection"]["judge"]["high"],
    }
    if "meta_reward" in after:
        return {
            **selects,
            "a response earns 0.80 or more on average": after["meta_reward"] >= 0.8,
            "and more than before": after["meta_reward"] > before["meta_reward"] + 0.05,
        }
    swapped = [weight for name, weight in report["weights"].items() if report["corrupt"].get(name)]
    clean = [weight for name, weight in report["weights"].items() if not report["corrupt"].get(name)]
    return {
        **selects,
        "swapped domains weigh at most half of the clean ones": sum(swapped) / len(swapped)
        <= 0.5 * sum(clean) / len(clean),
        "every swapped domain weighs less than every clean one": max(swapped) < min(clean),
        "the meta loss fell": after["meta_loss"] < before["meta_loss"],
        "the weighted inner loss fell": after["inner_loss"] < before["inner_loss"],
    }


def main() -> int:
    paths = sys.argv[1:] or ["runs/quickstart/report.json", "runs/quickstart_grpo/report.json"]
    every = []
    for path in paths:
        print(path)
        for claim, holds in claims(json.loads(Path(path).read_text(encoding="utf-8"))).items():
            print(f"{'ok ' if holds else 'NO '} {claim}")
            every.append(holds)
    return 0 if all(every) else 1


if __name__ == "__main__":
    sys.exit(main())
