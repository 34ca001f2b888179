"""ComfyUI-I2AM: see which part of a reference picture made which part of the result."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    # Imported when ComfyUI asks: outside it, tests import this package without ComfyUI's modules.
    from .nodes import I2AMExtension

    return I2AMExtension()
