// Exports to files and imports from them.

import { startSettings } from "./settings.js";
import { fileName, readExport, toJson, toMarkdown } from "./transfer.js";

export class Files {
  /** @param {import("./store.js").Store} store @param {(text: string) => void} say @param {(id: string) => Promise<void>} open */
  constructor(store, say, open) {
    this.store = store;
    this.say = say;
    this.open = open;
    const chooser = /** @type {HTMLInputElement} */ (document.getElementById("import-file"));
    document.getElementById("import")?.addEventListener("click", () => chooser.click());
    document.getElementById("export-all")?.addEventListener("click", () => this.saveAll());
    chooser.addEventListener("change", async () => {
      const file = chooser.files?.[0];
      chooser.value = "";
      if (file) await this.read(file);
    });
  }

  /** Save a conversation. @param {import("./tree.js").Conversation} tree @param {string} format  "json" or "markdown" */
  save(tree, format) {
    if (format === "json") download(fileName(tree.title, "json"), "application/json", toJson([tree]));
    else download(fileName(tree.title, "md"), "text/markdown", toMarkdown(tree));
  }

  async saveAll() {
    const trees = await this.store.all();
    if (trees.length > 0) download("mixcli-conversations.json", "application/json", toJson(trees));
    else this.say("There are no conversations to export.");
  }

  /** @param {File} file */
  async read(file) {
    let saved = 0;
    try {
      const trees = await readExport(file, startSettings());
      for (const tree of trees) {
        await this.store.save(tree);
        saved += 1;
      }
      if (trees.length > 0) await this.open(trees[0].id);
      this.say(`${trees.length} ${trees.length === 1 ? "conversation was" : "conversations were"} imported.`);
    } catch (error) {
      const what = saved === 0 ? "Nothing was imported." : `Only the first ${saved} of the file's conversations were imported.`;
      this.say(`${what} ${/** @type {Error} */ (error).message}`);
    }
  }
}

/** @param {string} name @param {string} type @param {string} text */
function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
