/** Lets the visitor keep a file: where they say, or among the downloads. @param {Blob} blob @param {string} name */
export async function save(blob, name) {
  const picker = /** @type {any} */ (globalThis).showSaveFilePicker
  if (picker) {
    const handle = await picker({ suggestedName: name }).catch((/** @type {Error} */ error) => {
      if (error.name !== 'AbortError') throw error
    })
    if (handle) await blob.stream().pipeTo(await handle.createWritable())
    return
  }
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}
