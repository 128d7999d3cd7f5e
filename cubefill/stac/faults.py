"""Why an asset could not be read, in words and without signatures."""

import re

_SECRET = re.compile(r"\?[^\s'\"]*")


def bare(text: str) -> str:
    """Text without the query part of URLs, where signatures stand."""
    return _SECRET.sub("", text)


def explain(what: str, href: str, error: str, retries: str) -> str:
    """Why a read failed, what the server says to it, and what to do."""
    said = bare(" ".join(error.split()))[:300]
    if href.startswith(("http://", "https://")):
        said = f"{_answer(href)}; {said}"
    tried = f" after {retries} retries" if "HTTP 5" in said or "HTTP 429" in said else ""
    return (
        f"Could not read {what}{tried}: {said}. Address: {bare(href)}. Run it again to "
        "resume, pass sign= where URLs expire, or on_error='flag' to mark such pixels as "
        "source_missing."
    )


def _answer(href: str) -> str:
    """What a server says to one small request: its status and the type of what it sends."""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(href, headers={"Range": "bytes=0-15"})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            sort = reply.headers.get("Content-Type", "no type")
            return f"the server answers HTTP {reply.status} with {sort}"
    except urllib.error.HTTPError as error:
        error.close()
        return f"the server answers HTTP {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"the server does not answer ({bare(str(error))})"
