/// <reference lib="dom" />
// The page's elements, found by their ids.

/** Finds an element of the page. @throws {TypeError} when it isn't there or is of another kind */
export function element<E extends Element>(id: string, kind: new () => E): E {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new TypeError(`#${id} is ${found}, must be a ${kind.name}`);
  return found;
}

export function setText(id: string, text: string): void {
  element(id, HTMLElement).textContent = text;
}

export function formatMiB(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
