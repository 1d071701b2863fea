// A directory that a run works in.
import { join } from "@std/path";

/** An empty directory until it is disposed, always of one name: what an interrupted run left goes with the next. */
export async function makeCleared(parent: string, name: string): Promise<AsyncDisposable & { readonly path: string }> {
  const path = join(parent, name);
  const clear = () => Deno.remove(path, { recursive: true }).catch(() => {});
  await clear();
  await Deno.mkdir(path, { recursive: true });
  return { path, [Symbol.asyncDispose]: clear };
}
