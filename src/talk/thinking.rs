//! Whether and how much a model is to think: what all switches mean.

/// Whether and how much a model is to think.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thinking {
    /// As the template wants it where nobody says.
    pub wanted: Option<bool>,
    /// `low`, `medium`, `high`.
    pub effort: Option<String>,
    /// The most tokens of a thought.
    pub budget: Option<usize>,
}

impl Thinking {
    /// Reads `on`, `off` or an effort.
    ///
    /// # Errors
    /// What would be one.
    pub fn set(&mut self, how: &str) -> Result<(), &'static str> {
        match how {
            "on" | "off" => {
                (self.wanted, self.effort) = (Some(how == "on"), None);
                Ok(())
            }
            effort => self.try_effort(effort).map_err(|_| "on, off, low, medium or high"),
        }
    }

    /// What [`Thinking::set`] reads as this; `None` as the template wants it.
    pub fn name(&self) -> Option<&str> {
        let wanted = if self.wanted? { "on" } else { "off" };
        Some(self.effort.as_deref().unwrap_or(wanted))
    }

    /// Reads an effort: `none` is no thinking, and any other is some.
    ///
    /// # Errors
    /// What would be one.
    pub fn try_effort(&mut self, effort: &str) -> Result<(), &'static str> {
        self.wanted = Some(effort != "none");
        self.effort = match effort {
            "none" => None,
            "minimal" => Some("low".to_owned()),
            "low" | "medium" | "high" | "max" => Some(effort.to_owned()),
            "xhigh" => Some("high".to_owned()),
            _ => return Err("none, minimal, low, medium or high"),
        };
        Ok(())
    }
}
