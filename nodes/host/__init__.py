"""The files that touch a running model: they record its attention or steer it.

To follow a recording: `hook` arms a model, `probe` hangs on one run, `passes` finds the rows of a
batch to record, `calls` hands each attention call to the recorder, `run` files the result.
"""
