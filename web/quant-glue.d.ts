/** The glue of the binaries in quant-binaries.js, built or not. */
declare module '*-quant.js' {
  const create: (options: Record<string, unknown>) => Promise<any>
  export default create
}
