// Shaders: WGSL files joined with the parts that they need, and what they bind.
//
// A file says in its first line which parts it uses, `// needs: rows cells`, each by the name of its file. A need that
// is no file's name is an interface: parts that serve it say `// is: NAME`, and the launcher chooses one of them.

/** A whole shader. */
export interface Shader {
  /** Name in error messages. */
  readonly label: string;
  /** WGSL. */
  readonly code: string;
  /** Number of each binding, by the name of its variable. */
  readonly bindings: ReadonlyMap<string, number>;
}

/** WGSL files by name: those of a room and of the rooms below it. */
export type WgslFiles<Name extends string = string> = Readonly<Record<Name, string>>;

/** Shaders that were joined before. */
const joined = new WeakMap<WgslFiles, Map<string, Shader>>();

/** A shader that needs no parts. */
export function wholeShader(label: string, code: string): Shader {
  const declared = code.matchAll(/@binding\((\d+)\)\s*var<[^>]*>\s*(\w+)/g);
  return { label, code, bindings: new Map(Array.from(declared, ([, number, name]) => [name, Number(number)])) };
}

/**
 * A file with its parts, joined when it is first asked for.
 *
 * @param chosen a part for each interface that it needs
 * @throws {TypeError} when an interface lacks its part, or a part is not needed
 */
export function joinShader<Name extends string>(
  files: WgslFiles<Name>,
  main: NoInfer<Name>,
  ...chosen: NoInfer<Name>[]
): Shader {
  const known = joined.get(files) ?? new Map<string, Shader>();
  joined.set(files, known);
  const key = [main, ...chosen].join(" ");
  const before = known.get(key);
  if (before) return before;
  const { parts, choice } = partsOf(files, main, chosen);
  if (choice) throw new TypeError(`${main} needs ${choice.need}, must choose ${choice.among.join(" or ")}`);
  const unused = chosen.find((part) => !parts.includes(part));
  if (unused) throw new TypeError(`${main} does not need ${unused}, must be without`);
  const code = [main, ...parts].map((name) => (files as WgslFiles)[name]).join("\n");
  // First all overrides: naga 29 panics where one follows a constant, or an array's size that is made of another.
  const overrides = code.match(/^override .*\n/gm) ?? [];
  const shader = wholeShader(main, overrides.join("") + code.replace(/^override .*\n/gm, ""));
  known.set(key, shader);
  return shader;
}

/** Parts of a shader, and the first interface for which none is chosen, with the parts that serve it. */
export function partsOf(files: WgslFiles, main: string, chosen: readonly string[]): {
  readonly parts: readonly string[];
  readonly choice?: { readonly need: string; readonly among: readonly string[] };
} {
  const parts = new Set<string>();
  const interfaces = new Set<string>();
  const serves = (need: string) => (part: string) => wordsAfter("is", files[part]).includes(need);
  const visit = (name: string) => {
    for (const need of wordsAfter("needs", files[name])) {
      const isPart = Object.hasOwn(files, need);
      const part = isPart ? need : chosen.find(serves(need));
      if (!isPart) interfaces.add(need);
      if (part === undefined || parts.has(part)) continue;
      parts.add(part);
      visit(part);
    }
  };
  visit(main);
  const need = Array.from(interfaces).find((need) => !Array.from(parts).some(serves(need)));
  return {
    parts: [...parts],
    ...(need !== undefined && { choice: { need, among: Object.keys(files).filter(serves(need)) } }),
  };
}

/** Words of a line at the head of a file. */
function wordsAfter(key: "needs" | "is", code: string): string[] {
  const line = code.match(new RegExp(`^(?:// (?:needs|is): .*\\n)*?// ${key}: (.*)\\n`));
  return line ? line[1].split(" ") : [];
}

/**
 * Bind group entries of buffers by name.
 *
 * @throws {TypeError} for a name that the shader doesn't bind, or one that is missing
 */
export function bindingEntries(
  { label, bindings }: Pick<Shader, "label" | "bindings">,
  buffers: Readonly<Record<string, GPUBuffer | GPUBufferBinding>>,
): GPUBindGroupEntry[] {
  const missing = Array.from(bindings.keys()).find((name) => !buffers[name]);
  if (missing) throw new TypeError(`${label} has no buffer for ${missing}, must have one`);
  return Object.entries(buffers).map(([name, item]) => {
    const binding = bindings.get(name);
    if (binding === undefined) {
      throw new TypeError(`${label} binds no ${name}, must be one of ${[...bindings.keys()].join(", ")}`);
    }
    return { binding, resource: "buffer" in item ? item : { buffer: item } };
  });
}
