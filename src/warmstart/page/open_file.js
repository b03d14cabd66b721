// The file is read in the browser, so that no copy of it is stored by the server.
() => new Promise((resolve) => {
  const input = Object.assign(document.createElement("input"), {type: "file", accept: ".txt,.md,text/plain"});
  const text = document.querySelector("textarea")?.value ?? "";
  const refuse = (reason) => resolve([text, `<p class="ws-error" role="alert">${reason}</p>`]);
  input.addEventListener("cancel", () => resolve([text, ""]));
  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (file.size > 2 ** 19) return refuse("The file is too large. The limit is 524,288 bytes.");
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (bytes.includes(0)) return refuse("The file is not a text file in UTF-8.");
    try {
      resolve([new TextDecoder("utf-8", {fatal: true}).decode(bytes), ""]);
    } catch {
      refuse("The file is not a text file in UTF-8.");
    }
  });
  input.click();
})
