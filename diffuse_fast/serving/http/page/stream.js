// Server-sent events of a POST request, which EventSource cannot send.

/** Send a body; call `seen` with each event's data. Throws an Error with the server's message. */
export async function draw(body, seen, signal) {
  const response = await fetch("/v1/images/generations", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    signal,
  });
  if (!response.ok) throw new Error(await message(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data) seen(JSON.parse(data));
    }
  }
}

async function message(response) {
  const wait = response.headers.get("Retry-After");
  try {
    const { error } = await response.json();
    return wait ? `${error.message} (in ${wait} s)` : error.message;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}
