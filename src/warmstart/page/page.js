// Shows the source words that a summary's word read from, when the word is pointed at or has the focus, and refuses a
// text that the server would refuse before it is in the box: gradio lays it out again and again.
() => {
  const note = Object.assign(document.createElement("p"), {className: "ws-error", textContent: TOO_LONG});
  note.setAttribute("role", "alert");
  const bound = (event) => {
    const box = event.target.closest?.("textarea");
    const added = (event.clipboardData ?? event.dataTransfer)?.getData("text/plain");
    note.remove();
    if (!box || !added) return;
    const whole = box.value.slice(0, box.selectionStart) + added + box.value.slice(box.selectionEnd);
    if (new TextEncoder().encode(JSON.stringify(whole)).length <= LARGEST) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    document.getElementById("ws-state").before(note);
  };
  const clear = (result) => {
    for (const word of result.querySelectorAll("[data-word].ws-read")) {
      word.classList.remove("ws-read");
      word.style.removeProperty("--share");
    }
    for (const word of result.querySelectorAll(".ws-word.ws-chosen")) word.classList.remove("ws-chosen");
  };
  const show = (event) => {
    const word = event.target.closest?.(".ws-word[data-read]");
    const result = word?.closest(".ws-result");
    if (!result) return;
    clear(result);
    word.classList.add("ws-chosen");
    const read = word.dataset.read.split(" ").map((pair) => pair.split(":").map(Number));
    const named = [];
    for (const [index, share] of read) {
      const source = result.querySelector(`[data-word="${index}"]`);
      if (!source) continue;
      source.classList.add("ws-read");
      source.style.setProperty("--share", `${Math.round(20 + 80 * share / read[0][1])}%`);
      if (named.length < 5) named.push(`${source.textContent} ${Math.round(100 * share)} %`);
    }
    const first = result.querySelector(`[data-word="${read[0][0]}"]`), text = result.querySelector(".ws-text");
    if (first) {
      const {top, bottom} = first.getBoundingClientRect(), box = text.getBoundingClientRect();
      if (top < box.top || bottom > box.bottom) text.scrollTop += top - box.top - box.height / 2;
    }
    result.querySelector(".ws-line").textContent = `\u201c${word.textContent}\u201d read from: ${named.join(", ")}`;
  };
  const move = (event) => {
    const word = event.target.closest?.(".ws-word[data-read]");
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!word || !step) return;
    const words = [...word.closest(".ws-summary").querySelectorAll(".ws-word[data-read]")];
    const next = words[words.indexOf(word) + step];
    if (!next) return;
    event.preventDefault();
    word.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  for (const kind of ["paste", "drop"]) document.addEventListener(kind, bound, true);
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("click", show);
  document.addEventListener("keydown", move);
}
