// The token: kept for this tab only, and taken from the address `#token=…` of a link.

const KEY = "mcp-manager-token";

/** Return the token of this tab, `null` without one. */
export function token() {
  return sessionStorage.getItem(KEY);
}

/** Keep a token until this tab is closed. */
export function keepToken(value) {
  sessionStorage.setItem(KEY, value);
}

/** Forget the token. */
export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

/** Tell whether a text can be sent as a token: header fields carry visible ASCII only. */
export function isToken(text) {
  return /^[\x21-\x7e]+$/.test(text);
}

/** Keep the token of the address, if there is one, and remove it there, so that no history or screen shows it. */
export function takeTokenFromAddress() {
  const found = /^#token=(.*)$/s.exec(location.hash);
  if (found === null) return false;
  history.replaceState(null, "", location.pathname + location.search);
  const value = decoded(found[1]).trim();
  if (isToken(value)) keepToken(value);
  return true;
}

/** Decode a part of an address; what is not well encoded stands for itself. */
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
