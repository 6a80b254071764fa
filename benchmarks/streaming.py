"""A CSV that is streamed: memory and throughput, against the same rows in memory."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

ROOT = Path(__file__).parent.parent
CITIES = np.array(["Rome", "Oslo", "Lima", "Bonn", "Kyiv"])


def run(gigabytes: float = 2.0, rounds: int = 3) -> None:
    """Print the table.

    Args:
        gigabytes: Size of the CSV.
        rounds: How often each contender trains one epoch.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        _generate(path, gigabytes * 1e9)
        table = f"--data CSVDataModule --data.path {path} --data.cache_dir {folder}/cache --data.batch_size 4096"
        held_out = "--model LitMLP --data.val_fraction 0.01 --data.test_fraction 0.01"
        contenders = {
            "empty run: digits": "",
            "streamed": f"{table} {held_out} --data.streaming true",
            "in memory": f"{table} {held_out} --data.streaming false",
        }
        print(f"\nAn epoch of a CSV of {path.stat().st_size / 1e9:.2f} GB, LitMLP, batches of 4096\n")
        print("| | round | samples/s | peak resident MiB |")
        print("|---|---|---|---|")
        for number in range(1, rounds + 1):
            for name, flags in contenders.items():
                line = f"{sys.executable} {ROOT}/train.py --max_epochs 1 --enable_progress_bar false {flags}"
                runs = f"{folder}/{number}"
                subprocess.run([*line.split(), "--default_root_dir", runs], check=True, capture_output=True)
                newest = max(Path(runs).rglob("summary.json"), key=lambda file: file.stat().st_mtime)
                found = json.loads(newest.read_text())
                cells = f"{found['samples_per_second']:,.0f} | {found['peak_memory_mib']:,.0f}"
                converted = ", converted first" if name == "streamed" and number == 1 else ""
                print(f"| {name}{converted} | {number} | {cells} |", flush=True)


def _generate(path: Path, size: float) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=12)
    with path.open("wb") as file:
        while file.tell() < size:
            x, city = rng.normal(size=(500_000, 12)), rng.integers(0, 5, 500_000)
            columns = {f"x{at}": column for at, column in enumerate(x.T.round(6))}
            label = (x @ weights + city - 2 + 2 * rng.normal(size=len(x)) > 0).astype(int)
            part = pa.table({**columns, "city": CITIES[city], "label": label})
            pacsv.write_csv(part, file, pacsv.WriteOptions(include_header=file.tell() == 0))
