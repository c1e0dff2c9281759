// What a run says, line by line: the call's own events, as text, in the order in which they come.
// Nothing of it is taken for markup. Keeps the last lines only, and follows the end unless the reader scrolled up.
"use strict";

(() => {
  const lines = document.querySelector("[data-follow]");
  if (!lines) return;
  const KEPT = 500;
  const state = document.getElementById("said-state");
  let last = "";

  const words = (kind, data) => {
    switch (kind) {
      case "accepted": return "accepted";
      case "released": return `given to ${data.node || "its pool"}`;
      case "running": return `runs on ${data.node}`;
      case "progress": return data.message || `${data.progress}${data.total ? ` of ${data.total}` : ""}`;
      case "asked": return `asks a person for ${data.tool}`;
      case "answered": return `was answered ${data.answer}${data.by ? ` by ${data.by}` : ""}`;
      case "retry": return `ended as ${data.ending}${data.message ? `: ${data.message}` : ""}; it is tried again`;
      case "ended": return `ended: ${data.state}${data.message ? `: ${data.message}` : ""}`;
      default: return kind;
    }
  };

  const add = (kind, event) => {
    const isAtEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    const row = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = new Date(event.at * 1000).toISOString().slice(11, 19);
    const text = document.createElement("span");
    text.textContent = words(kind, event.data);
    row.className = kind;
    row.append(time, text);
    lines.append(row);
    while (lines.childElementCount > KEPT) lines.firstElementChild.remove();
    if (isAtEnd) lines.scrollTop = lines.scrollHeight;
  };

  // By hand, for the browser's own EventSource would begin anew with all of the past after a broken connection.
  const read = async (body) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return false;
      rest += value;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const field = (name) => block.split("\n").filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join("\n");
        if (field("id")) last = field("id");
        const kind = field("event");
        if (!kind) continue;
        add(kind, JSON.parse(field("data")));
        if (kind === "ended") return true;
      }
    }
  };

  const follow = async () => {
    for (let wait = 1000; ; wait = Math.min(wait * 2, 15000)) {
      try {
        const answer = await fetch(lines.dataset.follow, { headers: last ? { "Last-Event-ID": last } : {} });
        const isOver = answer.status >= 400 && answer.status < 500 && answer.status !== 429;
        if (answer.redirected || isOver) break; // logged out, or gone
        if (answer.ok) {
          if (await read(answer.body)) break;
          wait = 500;
        }
      } catch { /* the connection ended; it is asked again below */ }
      await new Promise((done) => window.setTimeout(done, wait));
    }
    if (state && !lines.childElementCount) state.textContent = "Nothing was said while this page was open.";
  };
  follow();
})();
