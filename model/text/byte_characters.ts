// Bytes as characters that can be seen: the alphabet of GPT-2's tokens.

/** The character of each byte: itself where it is seen, the others in order from U+0100 on. */
const CHARACTERS: readonly string[] = makeCharacters();

const BYTES: ReadonlyMap<string, number> = new Map(CHARACTERS.map((character, byte) => [character, byte]));

function makeCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const isSeen = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(isSeen ? byte : next++);
  });
}

/** The UTF-8 bytes of a text as characters. */
export function toByteCharacters(text: string): string {
  let characters = "";
  for (const byte of new TextEncoder().encode(text)) characters += CHARACTERS[byte];
  return characters;
}

/** The bytes that characters stand for; a text with another character stands for its own UTF-8. */
export function fromByteCharacters(text: string): Uint8Array<ArrayBuffer> {
  const bytes = Array.from(text, (character) => BYTES.get(character));
  return bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes) : new TextEncoder().encode(text);
}
