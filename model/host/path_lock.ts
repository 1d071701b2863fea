// One writer at a time for an output path, among all processes and among the calls of one.
import { dirname } from "@std/path";
import { removePartials, unfinished } from "./atomic_file.ts";
import { statPathSync } from "./path_exists.ts";

/**
 * Claims a path that will be written, by a locked `path.lock` beside it; dispose it to let go. The lock of a process
 * that was killed blocks nobody, and what it left half written beside the path is removed.
 *
 * @throws {Error} while another holds it
 */
export async function lockPath(path: string): Promise<Disposable> {
  const lock = `${path}.lock`;
  await Deno.mkdir(dirname(path), { recursive: true });
  while (true) {
    // Without a pause up to where an interrupt's handler knows of the lock: none leaves it behind.
    const file = Deno.openSync(lock, { read: true, write: true, create: true });
    if (!file.tryLockSync(true)) {
      file.close();
      throw new Error(`${path} is being written by another run, must be another path or wait for it`);
    }
    const [own, there] = [file.statSync(), statPathSync(lock)];
    // Whoever had the lock before may have removed the file.
    if (own.ino !== there?.ino || own.dev !== there.dev) {
      file.close();
      continue;
    }
    unfinished.add(lock);
    await removePartials(path);
    return {
      [Symbol.dispose]() {
        Deno.removeSync(lock);
        unfinished.delete(lock);
        file.close();
      },
    };
  }
}
