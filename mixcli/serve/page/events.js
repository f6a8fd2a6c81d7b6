// Server-sent events, read from the body of a response.

const MAX_LINE = 16 * 1024 * 1024; // characters

/**
 * Yield the data of each event, and null for a comment, by which a server shows that it is alive.
 * @param {ReadableStream<Uint8Array>} body @returns {AsyncGenerator<string | null>}
 */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      if (rest.length > MAX_LINE) throw new Error("an event is too long");
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const text = line.endsWith("\r") ? line.slice(0, -1) : line;
        if (text === "") {
          if (data.length > 0) yield data.join("\n");
          data = [];
        } else if (text.startsWith(":")) {
          yield null;
        } else if (text.startsWith("data:")) {
          data.push(text.slice(text.startsWith("data: ") ? 6 : 5));
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
