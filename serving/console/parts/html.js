// The libraries of vendor/, which are plain scripts, as what modules import.

export const { h, render, Fragment } = preact;
export const { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } = preactHooks;
export const html = htm.bind(h);
