"""Whether the coordinator answers. Nothing else says so: without one everything goes on until a store fails too, and
then it is late.

It is asked now and then, though nobody needs an answer. A change that does not come through shows here as well.
"""

from __future__ import annotations

import asyncio
import logging

from s4.cluster.coordinator import CoordinatorError
from s4.cluster.keeper import MapKeeper

log = logging.getLogger(__name__)

ASK_S = 5.0


class Contact:
    """`where` is what people call the coordinator."""

    def __init__(self, keeper: MapKeeper, where: str) -> None:
        self._keeper, self._where, self.error = keeper, where, ""

    async def ask(self) -> None:
        before = self.error
        try:
            async with asyncio.timeout(ASK_S):
                await self._keeper.refresh()
        except TimeoutError:
            self.error = f"no answer within {ASK_S:g} s"
        except CoordinatorError as error:
            self.error = str(error) or repr(error)
        else:
            self.error = ""
        if self.error and not before:
            log.error("the coordinator %s does not answer: %s", self._where, self.error)
        if before and not self.error:
            log.warning("the coordinator %s answers again", self._where)

    def alarms(self) -> list[str]:
        if not self.error:
            return []
        return [
            f"the coordinator {self._where} does not answer; nothing that fails now is taken over, and no plan can be changed"
        ]
