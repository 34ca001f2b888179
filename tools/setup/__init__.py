"""What every command of dev.py needs first: an environment, a real ComfyUI, a browser, Node.js.

Standard library only: this runs before anything is installed.
"""
