"""Reference attribution for image models: watch attention, add it up, draw and score it.

Needs torch, numpy, Pillow and safetensors; knows nothing of ComfyUI.
"""

__version__ = "1.0.0"
