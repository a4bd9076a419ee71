/** The engine's side: for bundlers, which give its address as `workerUrl`. It exports nothing. */
export {}
