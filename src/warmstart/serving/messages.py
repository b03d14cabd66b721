"""What goes over the network, and what goes from the endpoints to the worker."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class Text(BaseModel):
    """A text to summarize."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(description="The text. Of a long one, the model reads the start.")


class Summary(BaseModel):
    """A summary."""

    summary: str = Field(description="The summary.")
    summary_tokens: int = Field(description="Its number of tokens.")
    source_tokens: int = Field(description="Number of tokens of the text that the model read.")
    truncated: bool = Field(description="Whether the text is longer than that.")


FAILED = "The summary failed. The log of the service has the reason."


@dataclass(frozen=True)
class Job:
    """A request in the queue of the worker."""

    text: str
    stream: bool
