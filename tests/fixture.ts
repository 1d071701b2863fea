// Expected values that other programs computed, kept compressed in `tests/fixtures/`.

const FOLDER = new URL("fixtures/", import.meta.url);

/** Reads `NAME.gz`, a JSON text. */
export async function readJson<T>(name: string): Promise<T> {
  return await (await inflate(name)).json();
}

/** Reads `NAME.gz`, little-endian f32. */
export async function readF32(name: string): Promise<Float32Array<ArrayBuffer>> {
  return new Float32Array(await (await inflate(name)).arrayBuffer());
}

async function inflate(name: string): Promise<Response> {
  const { body } = await fetch(new URL(`${name}.gz`, FOLDER));
  return new Response(body!.pipeThrough(new DecompressionStream("gzip")));
}
