// Keeps a page fresh: listens for "something happened", and asks for the page's live part again.
// Without this file, or with scripts off, every page works; reloading it is then the reader's doing.
"use strict";

(() => {
  const live = document.querySelector("[data-live]");
  const button = document.getElementById("pulse");
  if (!live || !button) return;
  const word = document.getElementById("pulse-word");
  let source = null;
  let paused = false;
  let wait = 3000;

  // what the reader has opened or written stays as it is
  window.Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && node.tagName === "DETAILS");
  window.Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) =>
    node.id !== "progress" && node.tagName !== "FORM" && !(node.dataset && "still" in node.dataset);

  const say = (text, state) => {
    button.dataset.state = state;
    if (word.textContent !== text) word.textContent = text;
  };

  const isBusy = () => {
    const chosen = document.getSelection();
    return chosen && !chosen.isCollapsed && live.contains(chosen.anchorNode);
  };

  const close = () => {
    if (source) source.close();
    source = null;
  };

  // A browser keeps few connections to one host: a page that nobody looks at gives its own back.
  const follow = () => {
    close();
    if (paused || document.hidden) return;
    source = new EventSource(live.dataset.live);
    source.addEventListener("tick", () => {
      say("Live", "on");
      wait = 3000;
      if (!isBusy()) window.htmx.trigger(live, "refresh");
    });
    source.addEventListener("progress", (event) => {
      const place = document.getElementById("progress");
      const said = JSON.parse(event.data).data;
      if (!place || said.progress === undefined) return;
      const share = said.total ? `${Math.round((100 * said.progress) / said.total)} %` : String(said.progress);
      place.textContent = `· ${share}${said.message ? ` · ${said.message}` : ""}`;
    });
    source.addEventListener("out", () => window.location.reload());
    source.onerror = () => {
      say("Reconnecting", "off");
      if (!source || source.readyState !== EventSource.CLOSED) return; // it comes back by itself
      window.setTimeout(follow, wait);
      wait = Math.min(wait * 1.5, 10000);
    };
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(!paused));
    say(paused ? "Paused" : "Live", paused ? "paused" : "on");
    follow();
  });
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", close);
  follow();
})();
