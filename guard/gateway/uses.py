"""Who still works with something that is to be put away."""

import asyncio


class Uses:
    """`with uses:` around every use; `await uses.over()` returns once nobody uses it.

    For one event loop alone.
    """

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *_error: object) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()

    async def over(self) -> None:
        """Wait for the last one."""
        await self._none.wait()
