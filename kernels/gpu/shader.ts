/**
 * Shaders: WGSL files joined with the parts that they need, and what they bind.
 *
 * A file says in its first line which parts it uses, `// needs: rows cells`, each by its name in a `parts/` folder. A need
 * that is no part's name is an interface: parts that serve it say `// is: NAME`, and the launcher chooses one of them.
 *
 * @module
 */

/** A whole shader. */
export interface Shader {
  /** Name in error messages. */
  readonly label: string;
  /** WGSL. */
  readonly code: string;
  /** Number of each binding, by the name of its variable. */
  readonly bindings: ReadonlyMap<string, number>;
}

/** A shader that needs no parts. */
export function wholeShader(label: string, code: string): Shader {
  const declared = code.matchAll(/@binding\((\d+)\)\s*var<[^>]*>\s*(\w+)/g);
  return { label, code, bindings: new Map(Array.from(declared, ([, number, name]) => [name, Number(number)])) };
}

/** WGSL files by name. */
type Files<Name extends string> = Readonly<Record<Name, string>>;

/** The shaders of a room. */
export interface Shaders<Main extends string, Part extends string> {
  /** Its complete files. */
  readonly mains: Files<Main>;
  /** Parts of this room and of those below. */
  readonly parts: Files<Part>;
  /**
   * A shader with its parts, joined when it is first asked for.
   *
   * @param chosen a part for each interface that it needs
   * @throws {TypeError} when an interface lacks its part, or a part is not needed
   */
  shader(main: Main, ...chosen: Part[]): Shader;
  /** The first interface of a shader for which nothing is chosen yet, and the parts that serve it. */
  openChoice(
    main: Main,
    chosen: readonly Part[],
  ): { readonly need: string; readonly among: readonly Part[] } | undefined;
}

/** Makes the shaders of a room. */
export function createShaders<Main extends string, Part extends string>(
  mains: Files<Main>,
  parts: Files<Part>,
): Shaders<Main, Part> {
  const made = new Map<string, Shader>();
  const serves = (part: Part, need: string) => wordsAfter("is", parts[part]).includes(need);
  const openChoice = (main: Main, chosen: readonly Part[]) => {
    const { open } = resolve(mains[main], parts, chosen);
    if (open === undefined) return undefined;
    return { need: open, among: (Object.keys(parts) as Part[]).filter((part) => serves(part, open)) };
  };
  const join = (main: Main, chosen: readonly Part[]) => {
    const choice = openChoice(main, chosen);
    if (choice) {
      throw new TypeError(
        `${main} needs ${choice.need}, must choose ${choice.among.join(" or ") || "a part that is one"}`,
      );
    }
    const { used } = resolve(mains[main], parts, chosen);
    const unused = chosen.find((part) => !used.has(part));
    if (unused) throw new TypeError(`${main} with ${chosen.join(", ")} does not need ${unused}, must be without`);
    return wholeShader(main, [mains[main], ...Array.from(used, (part) => parts[part])].join("\n"));
  };
  return {
    mains,
    parts,
    openChoice,
    shader(main, ...chosen) {
      const key = [main, ...chosen].join(" ");
      let shader = made.get(key);
      if (!shader) made.set(key, shader = join(main, chosen));
      return shader;
    },
  };
}

/**
 * Parts that a file uses, each before those that it needs itself, in the order in which they are named: overrides must
 * not follow constants (naga 29), so parts with overrides are named first. And the first interface that nothing serves.
 */
function resolve<Part extends string>(code: string, parts: Files<Part>, chosen: readonly Part[]) {
  const used = new Set<Part>();
  const interfaces = new Set<string>();
  const visit = (file: string) => {
    for (const need of wordsAfter("needs", file)) {
      const isPart = Object.hasOwn(parts, need);
      const part = isPart ? need as Part : chosen.find((part) => wordsAfter("is", parts[part]).includes(need));
      if (!isPart) interfaces.add(need);
      if (part === undefined || used.has(part)) continue;
      used.add(part);
      visit(parts[part]);
    }
  };
  visit(code);
  const served = new Set(Array.from(used).flatMap((part) => wordsAfter("is", parts[part])));
  return { used, open: Array.from(interfaces).find((need) => !served.has(need)) };
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
  for (const name of bindings.keys()) {
    if (!buffers[name]) throw new TypeError(`${label} has no buffer for ${name}, must have one`);
  }
  return Object.entries(buffers).map(([name, item]) => {
    const binding = bindings.get(name);
    if (binding === undefined) {
      throw new TypeError(`${label} binds no ${name}, must be one of ${[...bindings.keys()].join(", ")}`);
    }
    return { binding, resource: "buffer" in item ? item : { buffer: item } };
  });
}
