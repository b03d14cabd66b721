"""The LightningModule, optimizer and schedule, callbacks and trainer."""
