"""Write the Great Expectations suites from the contract: `make expectations` (python -m schemas.write_expectations).

The suites are committed, so that a change of a bound shows in a diff, and a test holds them to the contract.
"""

import json
from pathlib import Path
from typing import Final

from schemas.contracts import CONTRACTS, Contract

FOLDER: Final = Path(__file__).resolve().parent / "expectations"


def suite_text(contract: Contract) -> str:
    """Write one suite, one expectation a line."""
    suite = contract.suite()
    expectations = suite["expectations"]
    assert isinstance(expectations, list)  # noqa: S101 - for mypy
    lines = ",\n".join(f"    {json.dumps(item, ensure_ascii=False)}" for item in expectations)
    return f'{{\n  "name": {json.dumps(suite["name"])},\n  "expectations": [\n{lines}\n  ]\n}}\n'


def main() -> None:
    """Write every suite anew and delete those of tables that have no contract any more."""
    for path in FOLDER.glob("*.json"):
        if path.stem not in CONTRACTS:
            path.unlink()
    for name, contract in CONTRACTS.items():
        (FOLDER / f"{name}.json").write_text(suite_text(contract), encoding="utf-8")


if __name__ == "__main__":
    main()
