// Packed tensors in a safetensors file: the names, shapes and metadata of the packed format, version 2. Files
// of version 1 are read too (packed_version1.ts).
import {
  BASE_ZEROS,
  BLOCK_GROUPS,
  FORMAT_VERSION,
  GROUP_CHANNELS,
  groupsPerRow,
  HALF_BLOCK_GROUPS,
  halfBlocksPerRow,
  REFINE_EVERY,
  REFINED_ZEROS,
  TILE_ROWS,
  tilesPerColumn,
} from "../../quant/format.ts";
import {
  type PackedShape,
  type PackedTensor,
  planeLengths,
  type PlaneName,
  validatePackedTensor,
} from "../../quant/packed_tensor.ts";
import { parseJsonObject } from "../host/json.ts";
import { clipText, quoteText } from "../host/quote_text.ts";
import { bytesOf } from "./numbers.ts";
import { fromVersion1, planeShapeOfVersion1 } from "./packed_version1.ts";
import { type Dtype, readTensorBytes, type SafetensorsFile, tensorInfo } from "./safetensors.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";

/** Suffix and element type of each plane on disk. */
const PLANES: Readonly<Record<PlaneName, { readonly suffix: string; readonly dtype: Dtype }>> = {
  base: { suffix: "base", dtype: "U32" },
  refine: { suffix: "refine", dtype: "U32" },
  meta: { suffix: "meta", dtype: "U32" },
  tileScale: { suffix: "tile_scale", dtype: "F16" },
  outlierStart: { suffix: "outlier_start", dtype: "U32" },
  outlierChannel: { suffix: "outlier_index", dtype: "U16" },
  outlierResidual: { suffix: "outlier_residual", dtype: "F16" },
};

const PLANE_NAMES = Object.keys(PLANES) as PlaneName[];

/** Whether a tensor of a file is a plane of one of these packed tensors. */
export function isPlane(name: string, packed: Pick<ReadonlySet<string>, "has">): boolean {
  const dot = name.lastIndexOf(".");
  const suffix = name.slice(dot + 1);
  return packed.has(name.slice(0, dot)) && PLANE_NAMES.some((plane) => PLANES[plane].suffix === suffix);
}

/** Constants of the format as a file states them; a reader refuses other values. */
const FORMAT_METADATA: Readonly<Record<string, string>> = {
  format: "twobit",
  version: String(FORMAT_VERSION),
  group_channels: String(GROUP_CHANNELS),
  half_block_groups: String(HALF_BLOCK_GROUPS),
  tile_rows: String(TILE_ROWS),
  base_zeros: JSON.stringify(BASE_ZEROS),
  refined_zeros: JSON.stringify(REFINED_ZEROS),
};

/** The same of version 1. */
function metadataOfVersion1(): Readonly<Record<string, string>> {
  const { half_block_groups: _, ...others } = FORMAT_METADATA;
  return { ...others, version: "1", block_groups: String(BLOCK_GROUPS) };
}

function isVersion1({ metadata }: SafetensorsFile): boolean {
  return metadata.version === "1";
}

/** What a packed file says of itself besides its constants. */
export interface PackedMetadata {
  /** sha256 of the source checkpoint's weight files. */
  readonly sourceSha256: string;
  /** The quantizer's settings, as JSON. */
  readonly settings: string;
}

/** Metadata of a file with these tensors. */
export function packedMetadata(
  tensors: ReadonlyMap<string, PackedShape>,
  { sourceSha256, settings }: PackedMetadata,
): Record<string, string> {
  const shapes = Object.fromEntries(
    Array.from(tensors, ([name, { rows, channels, refineEvery }]) => [name, { rows, channels, refineEvery }]),
  );
  return { ...FORMAT_METADATA, tensors: JSON.stringify(shapes), source_sha256: sourceSha256, settings };
}

/** Whether a safetensors file says that it is a packed one. */
export function isPackedFile({ metadata }: SafetensorsFile): boolean {
  return metadata.format === FORMAT_METADATA.format;
}

/**
 * Checks a packed file's metadata and returns its tensors' shapes. A whole model is opened by {@linkcode openModel}.
 *
 * @throws {SyntaxError} naming what was found and what is wanted
 */
export function readPackedShapes(file: SafetensorsFile): Map<string, PackedShape> {
  const { source, metadata } = file;
  for (const [key, value] of Object.entries(isVersion1(file) ? metadataOfVersion1() : FORMAT_METADATA)) {
    if (metadata[key] !== value) {
      const wanted = key === "version" ? `1 or ${value}` : value;
      throw new SyntaxError(`${source.name}: ${key} is ${clipText(metadata[key] ?? "missing")}, must be ${wanted}`);
    }
  }
  const { fields } = parseJsonObject(`${source.name}: tensors`, metadata.tensors ?? "");
  return new Map(Object.entries(fields).map(([name, value]) => [name, checkShape(source.name, name, value)]));
}

function checkShape(file: string, name: string, value: unknown): PackedShape {
  const { rows, channels, refineEvery } = (value ?? {}) as Record<string, unknown>;
  const known = REFINE_EVERY.find((every) => every === refineEvery);
  const isSize = (size: unknown): size is number => Number.isSafeInteger(size) && Number(size) > 0;
  if (!isSize(rows) || !isSize(channels) || known === undefined) {
    throw new SyntaxError(
      `${file}: tensor ${clipText(name)} is ${
        quoteText(value)
      }, must have positive rows and channels and refineEvery of ${REFINE_EVERY.join(", ")}`,
    );
  }
  return { rows, channels, refineEvery: known };
}

/** The planes of a packed tensor, ready for a safetensors file. */
export function planesToWrite(name: string, tensor: PackedTensor): TensorToWrite[] {
  return PLANE_NAMES.map((plane) => planeToWrite(name, plane, tensor, tensor[plane]));
}

/** A plane of a packed tensor of this shape, ready for a safetensors file. */
export function planeToWrite<Name extends PlaneName>(
  name: string,
  plane: Name,
  shape: PackedShape,
  values: PackedTensor[Name],
): TensorToWrite {
  return {
    name: `${name}.${PLANES[plane].suffix}`,
    dtype: PLANES[plane].dtype,
    shape: planeShape(plane, shape, values.length),
    bytes: () => bytesOf(values),
  };
}

function planeShape(plane: PlaneName, { rows, channels }: PackedShape, length: number): number[] {
  switch (plane) {
    case "base":
      return [rows, halfBlocksPerRow(channels), HALF_BLOCK_GROUPS];
    case "meta":
      return [rows, halfBlocksPerRow(channels)];
    case "refine":
      return [rows, length / rows];
    case "tileScale":
      return [tilesPerColumn(rows), groupsPerRow(channels)];
    default:
      return [length];
  }
}

/**
 * Reads and checks a packed tensor; one of version 1 becomes one of version 2 with the same weights.
 *
 * @throws {SyntaxError} when a plane is missing, misshapen, or breaks a rule of the format
 */
export async function readPackedTensor(file: SafetensorsFile, name: string, shape: PackedShape): Promise<PackedTensor> {
  const { rows, channels, refineEvery } = shape;
  const outliers = tensorInfo(file, `${name}.${PLANES.outlierChannel.suffix}`).shape[0] ?? 0;
  const lengths = planeLengths(rows, channels, refineEvery, outliers);
  const bytes = new Map<PlaneName, Uint8Array<ArrayBuffer>>();
  for (const plane of PLANE_NAMES) {
    const { suffix, dtype } = PLANES[plane];
    const info = tensorInfo(file, `${name}.${suffix}`);
    const wanted = isVersion1(file)
      ? planeShapeOfVersion1(plane, shape, outliers)
      : planeShape(plane, shape, lengths[plane]);
    if (info.dtype !== dtype || info.shape.join() !== wanted.join()) {
      throw new SyntaxError(
        `${file.source.name}: ${info.name} is ${info.dtype} [${info.shape.join(", ")}], must be ${dtype} [${
          wanted.join(", ")
        }]`,
      );
    }
    bytes.set(plane, await readTensorBytes(file, info));
  }
  const buffer = (plane: PlaneName) => bytes.get(plane)!.buffer;
  const stored: PackedTensor = {
    rows,
    channels,
    refineEvery,
    base: new Uint32Array(buffer("base")),
    refine: new Uint32Array(buffer("refine")),
    meta: new Uint32Array(buffer("meta")),
    tileScale: new Float16Array(buffer("tileScale")),
    outlierStart: new Uint32Array(buffer("outlierStart")),
    outlierChannel: new Uint16Array(buffer("outlierChannel")),
    outlierResidual: new Float16Array(buffer("outlierResidual")),
  };
  const tensor = isVersion1(file) ? fromVersion1(stored) : stored;
  try {
    validatePackedTensor(tensor);
  } catch (cause) {
    throw new SyntaxError(`${file.source.name}: tensor ${clipText(name)}: ${(cause as Error).message}`, { cause });
  }
  return tensor;
}
