"""Models that are not read, and why, by the names of their ComfyUI classes."""

from __future__ import annotations

# They attend to no token of a reference or of a text that can be watched, or draw no picture.
WITHOUT_REFERENCES = {
    "PiD": "the picture it enlarges is added to the tokens of the result",
    "HunyuanImage21Refiner": "the picture it refines enters as channels of the result",
    "StableCascade_B": "the picture it enlarges enters as channels of the result",
    "SeedVR2": "the video it enlarges enters as channels of the result",
    "CogVideoX": "the first frame of its video enters as channels of the result",
    "TripoSplat": "its result is a cloud of splats, not a picture",
    "Hunyuan3Dv2": "its result is a shape, not a picture",
    "Hunyuan3Dv2_1": "its result is a shape, not a picture",
    "ACEStep": "its result is sound",
    "ACEStep15": "its result is sound",
    "StableAudio1": "its result is sound",
    "StableAudio3": "its result is sound",
    "DepthAnything3": "it draws nothing",
    "RT_DETR_v4": "it draws nothing",
    "SAM3": "it draws nothing",
    **dict.fromkeys(
        ("ErnieImage", "HunyuanDiT", "PixArt"),
        "it gets text only, and its attention runs where no node can watch it",
    ),
    "Anima": "it gets text only, and makes tokens of its own from it before it attends to them",
}

# They have tokens of a reference, which cannot be read yet.
NOT_YET = {
    "WAN21_CausalAR": "video made a few frames at a time, with earlier frames kept in a cache",
    "WAN21_Vace": "video with control frames in blocks of their own",
    "LTXAV": "video and sound with key frames among its own",
    "MiniMaxH3": "video and sound with reference frames among its own",
    "CosmosVideo": "video with given frames among its own",
    "CosmosPredict2": "video with given frames among its own",
    "Kandinsky5": "video with a given first frame",
}
