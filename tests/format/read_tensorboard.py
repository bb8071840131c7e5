#!/usr/bin/env python3
"""Prints what TensorBoard's own reader finds in a folder of event files: {"tag": [[step, value], ...], ...} as JSON.

    python tests/format/read_tensorboard.py FOLDER        needs: pip install tensorboard
"""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0}).Reload()
scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
print(json.dumps(scalars, sort_keys=True))
