// The broad calibration text that comes with the suite: model/text/mix/README.md says what it is made of.

/** The text of one source. */
export interface MixSource {
  readonly source: string;
  /** Pieces of it, one after the other. */
  readonly text: string;
}

export async function readMix(): Promise<MixSource[]> {
  // Not Deno.readFile: a package that was imported from a registry lies behind an address.
  const { body } = await fetch(new URL("./mix/mix.json.gz", import.meta.url));
  return await new Response(body!.pipeThrough(new DecompressionStream("gzip"))).json();
}
