// Refreshes the numbers of the overview. Every page works without it.
(() => {
  const live = document.getElementById("live");
  const controls = document.getElementById("refreshing");
  if (!live || !controls) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  const note = document.createElement("span");
  controls.append(button, note);
  let paused = false;
  let asking = false;
  const show = () => {
    button.textContent = paused ? "Refresh again" : "Pause refreshing";
    note.textContent = paused ? "Not refreshed." : "Refreshed every 5 seconds.";
  };
  button.addEventListener("click", () => {
    paused = !paused;
    show();
  });
  show();
  // Whoever reads with the keyboard or marks text keeps the place.
  const inUse = () =>
    live.contains(document.activeElement) || (getSelection() && getSelection().type === "Range");
  setInterval(async () => {
    if (asking || paused || document.hidden || inUse()) return;
    asking = true;
    try {
      const answer = await fetch(live.dataset.source, { redirect: "error", signal: AbortSignal.timeout(20000) });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (paused || inUse()) return;
      live.innerHTML = text;
      show();
    } catch {
      note.textContent = "The gateway does not answer: these numbers are old.";
    } finally {
      asking = false;
    }
  }, 5000);
})();
