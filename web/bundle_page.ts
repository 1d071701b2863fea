// The page's script: one file from its sources, without types.
import { fromFileUrl } from "@std/path";

/** Bundles page.ts and all that it imports, by `deno bundle`. @throws {Error} with what that says */
export async function bundlePage(): Promise<Uint8Array<ArrayBuffer>> {
  const page = fromFileUrl(new URL("./page.ts", import.meta.url));
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--platform=browser", page],
    cwd: fromFileUrl(new URL("../", import.meta.url)),
    env: { NO_COLOR: "1" },
  }).output();
  if (!success) throw new Error(`deno bundle failed: ${new TextDecoder().decode(stderr).trim()}`);
  return stdout;
}
