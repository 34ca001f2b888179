// @ts-check
/** Which node gives a model which reference: data, so that a new node is a new line. */

/**
 * How a reference enters the model. The model's references are in this order; within one kind, in
 * the order of their nodes. The vision tokens of Wan (`clip`) count only if no picture is among the
 * video's own tokens (docs/models.md).
 *
 * @typedef {"style" | "vision" | "clip" | "tokens" | "latent" | "adapter"} Way
 */
export const ORDER = /** @type {Way[]} */ ([
  ...["style", "vision", "clip", "tokens", "latent", "adapter"],
]);

/**
 * @typedef {Object} Giver what a node adds to the references of its conditioning or its model
 * @property {Way} way
 * @property {string[]} pictures inputs that hold a reference, in the model's order; "images.*" is
 *   every input of a growing group. Each is a picture, a latent or a CLIP vision output.
 * @property {string} [needs] an input without which the node adds none
 * @property {Record<string, string>} [when] the widget values with which it does
 * @property {string} [mark] an input of a style model whose tokens Mark Redux Tokens must find
 * @property {boolean} [centred] the node itself cuts its pictures to the result's proportions
 * @property {string[]} [beside] inputs whose picture enters beside the tokens and has no map
 */

/** @type {(way: Way, pictures: string[], more?: Partial<Giver>) => Giver} */
const gives = (way, pictures, more = {}) => ({ way, pictures, ...more });

const IMAGES = ["image1", "image2", "image3"];
const START = { beside: ["start_image"] };
const CENTRED = { centred: true };

/** @type {Record<string, Giver>} by node, on a wire of conditioning */
export const ON_CONDITIONING = {
  ReferenceLatent: gives("latent", ["latent"]),
  TextEncodeQwenImageEdit: gives("latent", ["image"], { needs: "vae" }),
  TextEncodeQwenImageEditPlus: gives("latent", IMAGES, { needs: "vae" }),
  TextEncodeZImageOmni: gives("latent", IMAGES, { needs: "vae" }),
  TextEncodeBooguEdit: gives("latent", ["images.*"], { needs: "vae" }),
  TextEncodeJoyImageEdit: gives("latent", ["images.*"], { needs: "vae" }),
  TextEncodeMageFlowEdit: gives("latent", ["images.*"], { needs: "vae" }),
  HiDreamO1ReferenceImages: gives("latent", ["images.*"]),
  InstructPixToPixConditioning: gives("latent", ["pixels"]),
  StyleModelApply: gives("tokens", ["clip_vision_output"], { mark: "style_model" }),
  unCLIPConditioning: gives("vision", ["clip_vision_output"]),
  I2AM_ImageTokens: gives("tokens", ["clip_vision_output"]),
  I2AM_ReferenceTokens: gives("tokens", ["image"]),
  SVD_img2vid_Conditioning: gives("vision", ["init_image"]),
  SV3D_Conditioning: gives("vision", ["init_image"]),
  StableZero123_Conditioning: gives("vision", ["init_image"]),
  StableZero123_Conditioning_Batched: gives("vision", ["init_image"]),
  LTXVAddGuide: gives("latent", ["image"], CENTRED),
  LTXVImgToVideo: gives("latent", [], { beside: ["image"] }),
  HunyuanImageToVideo: gives("latent", ["start_image"], {
    when: { guidance_type: "custom" },
    centred: true,
  }),
  HunyuanVideo15ImageToVideo: gives("vision", ["clip_vision_output"], START),
  HunyuanVideo15SuperResolution: gives("vision", ["clip_vision_output"], START),
  WanImageToVideo: gives("clip", ["clip_vision_output"], START),
  WanFunControlToVideo: gives("clip", ["clip_vision_output"], START),
  WanCameraImageToVideo: gives("clip", ["clip_vision_output"], START),
  WanMoveTrackToVideo: gives("clip", ["clip_vision_output"], START),
  WanTrackToVideo: gives("clip", ["clip_vision_output"], START),
  WanInfiniteTalkToVideo: gives("clip", ["clip_vision_output"], START),
  WanFunInpaintToVideo: gives("clip", ["clip_vision_output"], {
    beside: ["start_image", "end_image"],
  }),
  WanFirstLastFrameToVideo: gives("clip", ["clip_vision_start_image", "clip_vision_end_image"], {
    beside: ["start_image", "end_image"],
  }),
  WanAnimateToVideo: gives("clip", ["clip_vision_output"], { beside: ["reference_image"] }),
  WanDancerVideo: gives("clip", ["clip_vision_output_ref", "clip_vision_output"], START),
  WanPhantomSubjectToVideo: gives("latent", ["images"], CENTRED),
  WanHuMoImageToVideo: gives("latent", ["ref_image"], CENTRED),
  WanSoundImageToVideo: gives("latent", ["ref_image"], CENTRED),
  WanSoundImageToVideoExtend: gives("latent", ["ref_image"], CENTRED),
  WanSCAILToVideo: gives("latent", ["reference_image"], CENTRED),
  Wan22FunControlToVideo: gives("latent", ["ref_image"], CENTRED),
  BerniniConditioning: gives("latent", [
    ...["source_video", "reference_video", "reference_images.*"],
  ]),
  InpaintModelConditioning: gives("latent", [], { beside: ["pixels"] }),
};

/** @type {Record<string, Giver>} by node, on a wire of a model */
export const ON_MODEL = {
  USOStyleReference: gives("style", ["clip_vision_output"]),
  // From the pack ComfyUI_IPAdapter_plus.
  IPAdapter: gives("adapter", ["image"]),
  IPAdapterAdvanced: gives("adapter", ["image"]),
  IPAdapterBatch: gives("adapter", ["image"]),
  IPAdapterFaceID: gives("adapter", ["image"]),
  IPAdapterFaceIDBatch: gives("adapter", ["image"]),
  IPAdapterFaceIDKolors: gives("adapter", ["image"]),
  IPAdapterMS: gives("adapter", ["image"]),
  IPAdapterPreciseComposition: gives("adapter", ["image"]),
  IPAdapterPreciseCompositionBatch: gives("adapter", ["image"]),
  IPAdapterPreciseStyleTransfer: gives("adapter", ["image"]),
  IPAdapterPreciseStyleTransferBatch: gives("adapter", ["image"]),
  IPAdapterStyleComposition: gives("adapter", ["image_style", "image_composition"]),
  IPAdapterStyleCompositionBatch: gives("adapter", ["image_style", "image_composition"]),
  IPAdapterTiled: gives("adapter", ["image"]),
  IPAdapterTiledBatch: gives("adapter", ["image"]),
};

/** Models that cannot be watched, by a node they need: Capture Attention would refuse the run. */
export const UNREAD = /** @type {Record<string, string>} */ ({
  WanVaceToVideo: "VACE's pictures stand in blocks of their own, which cannot be read yet",
  Hunyuan3Dv2Conditioning: "its result is a shape, not a picture",
  Hunyuan3Dv2ConditioningMultiView: "its result is a shape, not a picture",
  TripoSplatConditioning: "its result is a cloud of splats, not a picture",
  LTXVConcatAVLatent: "models of video and sound cannot be read yet",
  MiniMaxH3ImageToVideo: "models of video and sound cannot be read yet",
  MiniMaxH3ReferenceToVideo: "models of video and sound cannot be read yet",
  SeedVR2Conditioning: "the video it enlarges enters as channels of the result",
});

/** The conditioning inputs whose references a node keeps, where it does not keep those of all. */
export const KEPT_CONDITIONINGS = /** @type {Record<string, string[]>} */ ({
  ConditioningAverage: ["conditioning_to"],
});

/** The input whose tokens a node appends to another's; only the other input's marks are kept. */
export const JOINED_TOKENS = /** @type {Record<string, string>} */ ({
  ConditioningConcat: "conditioning_from",
});

/** Which of its inputs a switch passes on, by the value of a widget. */
export const SWITCHES = /** @type {Record<string, { by: string, inputs: [string, string] }>} */ ({
  ComfySwitchNode: { by: "switch", inputs: ["on_false", "on_true"] },
});

/** Nodes that pass on a latent whose picture stays the same. */
export const SAME_PICTURE = new Set(["SetLatentNoiseMask", "RepeatLatentBatch"]);

/** The input that a latent's mask comes from, for nodes on its way into a sampler. */
export const MASKS = /** @type {Record<string, string>} */ ({
  SetLatentNoiseMask: "mask",
  VAEEncodeForInpaint: "mask",
  InpaintModelConditioning: "mask",
});
